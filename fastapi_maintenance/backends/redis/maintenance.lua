-- Everything that must happen in one atomic step. ARGV[1] names the step; every step ends with one consistent reading.
--
-- KEYS  1 switch (string)   2 holds (hash: id -> "deadline since json", microseconds of Redis' clock)
--       3 registry (hash: id -> JSON of the worker, and four fields that begin with #)   4 epoch (string: "epoch incarnation restored_from cleared decided")
--       5 history (stream of changes)   6 recorded (hash: scope, '' for none -> "end digest" of the switch that the history knows of)
--       7 workers as versions before 1.0 register them (hash: id -> "deadline json")
--       8 and on: switches of scopes, each called as the switch, a colon, and the scope
-- The last reports of workers are strings beside the registry: "sequence json".
--
-- No step ends a hold because its deadline is over on this clock, which may have been set: workers observe that on their own clocks.
--
-- epoch    counts what no other key shows: taking and ending holds, clearing. Never goes back while it exists.
-- incarnation  names this life of the data; another one, or none, means that the data was lost.
-- restored_from  the life that a worker has already restored into this one, 0 if none has.
-- cleared  the epoch at which all holds were ended; older holds may not be renewed.
-- decided  the epoch at which a step last set the switch, 0 if none has; over a decision no lost switch is put back.
--
-- A note is JSON: the author of a change (by, host, pid), and the state that is set. The history stores it as it is.

local SWITCH, HOLDS, REGISTRY, EPOCH, HISTORY, RECORDED, EARLIER = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local FIRST_SCOPE = 8
local REPORTS = string.sub(REGISTRY, 1, -#'registry' - 1) .. 'w:'
local MAX_BYTES = 65536
local DAY = 86400 * 1000000
local TOO_LATE = 60 * 1000000 -- lost data without which others have lived for a minute is not put back any more
local DIGITS = 16 -- no valid time in microseconds has more
local FIELDS = {'epoch', 'incarnation', 'restored_from', 'cleared', 'decided'}
local PARTS = {'scope', 'hold', 'note', 'value', 'error'} -- of an entry of the history, beside its kind
local MOST_ENTRIES = 1000 -- of the history, about
local MOST_KEPT = 2048 -- bytes of a value that the history keeps whole
local LOSS = '!' -- where the hash of what is recorded keeps when a loss was; no scope is called so
local EPOCHS = '!epochs' -- where it keeps the latest epochs
local KEPT_EPOCHS = 20 * 17 -- characters
local DECIDED = '!:' -- begins the fields of that hash that say when the switch of a scope was last set
local RELEASED = '!-' -- begins those that say when a hold was released
local RESTORED = '#restored' -- the field of the registry that says with which knowledge what was lost was last restored

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

local digest = redis.sha1hex or function(text) return text end -- what imitates Redis in tests and demos lacks it
local function int(number) return string.format('%.0f', number) end

local function read_epoch()
  local text, record = redis.pcall('GET', EPOCH), {}
  local ours = type(text) == 'string' and #text < 100 and text or ''
  local numbers = {string.match(ours, '^(%d+) (%d+) (%d+) (%d+) (%d+)$')}
  for i, field in ipairs(FIELDS) do record[field] = tonumber(numbers[i] or 0) end
  return record
end

local function past_epochs()
  local text = redis.pcall('HGET', RECORDED, EPOCHS)
  return type(text) == 'string' and text or ''
end

-- A worker whose last epoch is not among the latest ones has read data that were rolled back since.
local function remember_epoch(epoch)
  redis.pcall('HSET', RECORDED, EPOCHS, string.match(past_epochs() .. ' ' .. int(epoch), ' .*', -KEPT_EPOCHS))
end

local function write_epoch(record)
  local numbers = {}
  for i, field in ipairs(FIELDS) do numbers[i] = int(record[field]) end
  redis.call('SET', EPOCH, table.concat(numbers, ' '))
  remember_epoch(record.epoch)
end

local function bump(record)
  if record.incarnation == 0 then record.incarnation = now end
  record.epoch = math.max(now, record.epoch + 1)
  return record
end

-- A change that the switch alone does not show: count it, and publish it for workers without tracking.
local function announce(record)
  write_epoch(record)
  redis.pcall('PUBLISH', ARGV[2], int(record.epoch))
end

local unrecorded = '' -- why the history lacks what has just happened

-- The change counts more than its record: what is refused here is told in the reply, and stops nothing.
local function attempt(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then unrecorded = reply.err end
  return reply
end

local function enter(kind, what)
  local entry = {'kind', kind}
  if what.value and #what.value > MOST_KEPT then what.value, what.error = nil, 'too long to be kept here' end
  for _, name in ipairs(PARTS) do
    if what[name] and what[name] ~= '' then
      table.insert(entry, name)
      table.insert(entry, what[name])
    end
  end
  attempt('XADD', HISTORY, 'MAXLEN', '~', MOST_ENTRIES, '*', unpack(entry))
end

-- Host and pid of the JSON only: the worker that notices a change is not its author.
local function place_in(json)
  local decoded, who = pcall(function() return cjson.decode(json) end)
  if not (decoded and type(who) == 'table' and type(who.host) == 'string' and type(who.pid) == 'number') then return '' end
  return cjson.encode({host = who.host, pid = who.pid})
end

-- What is restored later must not undo this decision.
local function mark(field) attempt('HSET', RECORDED, field, int(now)) end

-- Remove a hold whose lease has expired; once, although every worker notices.
local function lapse(id, json)
  if redis.pcall('HDEL', HOLDS, id) == 1 then enter('lapsed', {hold = id, value = json}) end
end

-- A hold that no worker has seen end for a day has no workers around it.
local function sweep_holds()
  local entries = redis.call('HGETALL', HOLDS)
  for i = 1, #entries, 2 do
    local stamp = string.match(entries[i + 1], '^(%d+) ')
    local deadline = stamp and #stamp <= DIGITS and tonumber(stamp) or 0
    if deadline == 0 then redis.call('HDEL', HOLDS, entries[i])
    elseif deadline + DAY <= now then lapse(entries[i], string.match(entries[i + 1], '^%d+ %d* ?(.*)$')) end
  end
end

local function put_hold(id, since, json, lease_ms)
  redis.call('HSET', HOLDS, id, table.concat({int(now + tonumber(lease_ms) * 1000), int(since), json}, ' '))
  sweep_holds()
end

local function component_of(key) return string.sub(key, #SWITCH + 2) end

-- The switch of a scope ('' or none for the general one). None that was not announced as a key is touched.
local function switch_of(scope)
  if not scope or scope == '' then return SWITCH end
  for i = FIRST_SCOPE, #KEYS do
    if component_of(KEYS[i]) == scope then return KEYS[i] end
  end
end

local function is_wrong_type(reply) return string.find(reply.err, 'WRONGTYPE', 1, true) end

-- Keep the list of workers without a report, each with when that was first seen, and forget one after a day.
-- Live workers read the list and prove those gone that they can.
local function list_vanished(listed, without_report)
  local since, list = {}, {}
  for id, at in string.gmatch(listed or '', '(%S+) (%d+)') do since[id] = tonumber(at) end
  for _, id in ipairs(without_report) do
    local at = since[id] or now
    if at + DAY <= now then redis.pcall('HDEL', REGISTRY, id)
    else table.insert(list, id .. ' ' .. int(at)) end
  end
  local text = table.concat(list, ' ')
  if text == (listed or '') then return end
  if text == '' then redis.pcall('HDEL', REGISTRY, '#vanished') else redis.pcall('HSET', REGISTRY, '#vanished', text) end
end

local function call_roll()
  local ids, records, reports, without_report, fields = {}, {}, {}, {}, {}
  local entries, get, count = redis.call('HGETALL', REGISTRY), redis.call, 0
  for i = 1, #entries, 2 do
    local id = entries[i]
    if string.byte(id) == 35 then fields[id] = entries[i + 1] -- #
    else
      local report = get('GET', REPORTS .. id)
      count = count + 1
      ids[count], records[count], reports[count] = id, entries[i + 1], report
      if not report then table.insert(without_report, id) end
    end
  end
  list_vanished(fields['#vanished'], without_report)
  return {fields['#generation'] or '', ids, records, reports, redis.call('HGETALL', EARLIER)}
end

-- Status and value, or an error.
local function read_switch(key)
  local size = redis.pcall('STRLEN', key)
  if type(size) == 'table' then
    if is_wrong_type(size) then return 'wrong type', false end
    return nil, size
  end
  if size > MAX_BYTES then return 'too long', false end
  return 'text', redis.call('GET', key)
end

-- What the history knows of switches: scope -> "end digest"; none where it cannot know.
local function recorded()
  local entries, known = attempt('HGETALL', RECORDED), {}
  if entries.err then return end
  for i = 1, #entries, 2 do known[entries[i]] = entries[i + 1] end
  return known
end

local function end_in(left) return left >= 0 and math.floor(now / 1000) + left or 0 end

local function remember(scope, text, left)
  if text == '' then attempt('HDEL', RECORDED, scope)
  else attempt('HSET', RECORDED, scope, int(end_in(left)) .. ' ' .. digest(text)) end
end

-- Record a switch that was written past us. `seen` has its scope, status, value and time to live left.
local function notice(seen, known, json)
  local scope, status, value, left = seen[1], seen[2], seen[3], seen[4]
  local text = status == 'text' and (value or '') or status
  local ends, digested = string.match(known[scope] or '', '^(%d+) (.*)$')
  ends = tonumber(ends or 0)
  if digested == (text ~= '' and digest(text) or nil) then
    if text ~= '' and math.abs(ends - end_in(left)) > 1000 then -- EXPIRE, or the same once more
      remember(scope, text, left)
      mark(DECIDED .. scope)
    end
    return false
  end
  local ran_out = text == '' and ends > 0 and ends <= now / 1000
  if not ran_out then mark(DECIDED .. scope) end
  enter(ran_out and 'expired' or 'noticed', {
    scope = scope, note = place_in(json), value = status == 'text' and value, error = status ~= 'text' and status,
  })
  remember(scope, text, left)
  return true
end

-- Set a switch, and say whether that has changed it. What was written past us before comes first in the history.
local function put_switch(key, value, px, json)
  local scope, known, status, before = component_of(key), recorded(), read_switch(key)
  if known and status then notice({scope, status, before, redis.call('PTTL', key)}, known, json) end
  if value == '' then redis.call('DEL', key)
  elseif tonumber(px) > 0 then redis.call('SET', key, value, 'PX', px)
  else redis.call('SET', key, value) end
  remember(scope, value, tonumber(px) > 0 and tonumber(px) or -1)
  return status ~= 'text' or before ~= (value ~= '' and value)
end

-- Set a switch for good. `what` goes into the history if that changes it.
local function decide(value, px, scope, what)
  local key = switch_of(scope)
  local changed = put_switch(key, value, px, what.note or '')
  mark(DECIDED .. component_of(key))
  what.scope = scope
  if changed then enter('set', what) end
  local record = bump(read_epoch())
  if key == SWITCH then record.decided = record.epoch end
  return record
end

local function reading(verdict, roll)
  local status, value = read_switch(SWITCH)
  if not status then return {err = value.err} end
  local holds, facts, scopes = {}, {}, {}
  local left = redis.call('PTTL', SWITCH)
  local seen = {{'', status, value, left}}
  local entries = redis.pcall('HGETALL', HOLDS)
  if entries.err then
    if not is_wrong_type(entries) then return {err = entries.err} end
    holds = false
  else
    for i = 1, #entries, 2 do
      local deadline, since, json = string.match(entries[i + 1], '^(%d+) (%d+) (.*)$')
      if not deadline or #deadline > DIGITS or #since > DIGITS then
        table.insert(holds, {entries[i], '', '', ''})
      else
        table.insert(holds, {entries[i], deadline, since, json})
        table.insert(facts, entries[i] .. '=' .. json)
      end
    end
  end
  for i = FIRST_SCOPE, #KEYS do
    local scope, state, text = component_of(KEYS[i]), read_switch(KEYS[i])
    if not state then return {err = text.err} end
    table.insert(seen, {scope, state, text, -1})
    if text or state ~= 'text' then
      seen[#seen][4] = redis.call('PTTL', KEYS[i])
      table.insert(scopes, seen[#seen])
      table.insert(facts, scope .. ':' .. (text or state))
    end
  end
  table.sort(facts)
  table.insert(facts, value or '')
  local record = read_epoch()
  return {
    int(now), status, value, left, holds,
    {int(record.epoch), int(record.incarnation), int(record.restored_from)}, digest(table.concat(facts, '\n')), verdict or '',
    roll or {}, scopes,
  }, seen
end

local step = {}

function step.read() end

-- The first life of the data.
function step.begin()
  if read_epoch().incarnation == 0 then write_epoch(bump(read_epoch())) end
end

-- ARGV: 3 JSON of the worker. Record what was written past us, once, and count that: a count that goes back shows a rollback.
function step.notice()
  local _, seen = reading()
  local known, noticed = recorded(), false
  for _, switch in ipairs(known and seen or {}) do noticed = notice(switch, known, ARGV[3]) or noticed end
  if noticed then attempt('HINCRBY', REGISTRY, '#noticed', 1) end
end

-- ARGV: 3 hold id, 4 its entry as a worker has observed it, unchanged, for its whole length.
function step.lapse()
  local entry = redis.call('HGET', HOLDS, ARGV[3])
  if entry ~= ARGV[4] then return end
  lapse(ARGV[3], string.match(entry, '^%d+ %d* ?(.*)$'))
  announce(bump(read_epoch()))
end

-- ARGV: 3 the generation of the registry that is incomplete, 4 another one in its place.
function step.regenerate()
  if redis.call('HGET', REGISTRY, '#generation') ~= ARGV[3] then return end
  redis.call('HSET', REGISTRY, '#generation', ARGV[4])
  return 'regenerated'
end

-- ARGV: 3 worker id, 4 its JSON ('' if it left), 5 lifetime in ms. Barriers of versions before 1.0 look there, while such a version runs.
function step.earlier()
  if redis.call('EXISTS', EARLIER) == 0 then return end
  local left = ARGV[4] == ''
  redis.call('HSET', EARLIER, ARGV[3], int(left and now or now + tonumber(ARGV[5]) * 1000) .. ' ' .. (left and 'left' or ARGV[4]))
end

-- A worker that has applied the epoch of this step has read the switch as it is now, or later.
function step.barrier() announce(bump(read_epoch())) end

function step.workers() end

-- ARGV: 3 value ('' for off), 4 time to live in ms (0 for none), 5 scope, 6 note.
function step.write() announce(decide(ARGV[3], ARGV[4], ARGV[5], {note = ARGV[6]})) end

-- ARGV: 3 value, 4 the fingerprint that the caller has seen, 5 scope, 6 note. The time to live stays what it is.
function step.amend()
  if reading()[7] ~= ARGV[4] then return 'changed' end
  local left = redis.call('PTTL', switch_of(ARGV[5]))
  announce(decide(ARGV[3], left < 0 and 0 or math.max(left, 1), ARGV[5], {note = ARGV[6]}))
end

local function clear(note)
  put_switch(SWITCH, '', 0, note or '')
  mark(DECIDED)
  redis.call('DEL', HOLDS)
  enter('cleared', {note = note})
  local record = bump(read_epoch())
  record.decided, record.cleared = record.epoch, record.epoch
  announce(record)
end

-- ARGV: 3 value ('' for off), 4 the fingerprint that the caller has seen, 5 scope, 6 '1' to clear instead, 7 note.
function step.exchange()
  if reading()[7] ~= ARGV[4] then return 'changed' end
  if ARGV[6] == '1' then return clear(ARGV[7]) end
  announce(decide(ARGV[3], 0, ARGV[5], {note = ARGV[7]}))
end

-- ARGV: 3 note.
function step.clear() clear(ARGV[3]) end

-- ARGV: 3 hold id, 4 its JSON, 5 lease in ms, 6 note.
function step.acquire()
  local record = bump(read_epoch())
  put_hold(ARGV[3], record.epoch, ARGV[4], ARGV[5])
  enter('taken', {hold = ARGV[3], note = ARGV[6]})
  announce(record)
  return int(record.epoch)
end

-- ARGV: as acquire, 6 the epoch at which it was acquired, 7 note. A hold that vanished with the data, or ran out, is put back.
function step.renew()
  local record, since = read_epoch(), tonumber(ARGV[6])
  if record.cleared > since then return 'revoked' end
  local known = redis.call('HEXISTS', HOLDS, ARGV[3]) == 1
  put_hold(ARGV[3], since, ARGV[4], ARGV[5])
  if not known then
    enter('restored', {hold = ARGV[3], note = ARGV[7]})
    announce(bump(record))
  end
end

-- ARGV: 3 hold id, 4 value that the switch keeps ('' for none), 5 scope, 6 note, 7 note of what is kept.
function step.release()
  local kept = ARGV[4] ~= '' and decide(ARGV[4], 0, ARGV[5], {note = ARGV[7]})
  local ended = redis.call('HDEL', HOLDS, ARGV[3]) == 1
  for field, at in pairs(recorded() or {}) do
    if string.sub(field, 1, #RELEASED) == RELEASED and math.abs(now - (tonumber(at) or 0)) > TOO_LATE then attempt('HDEL', RECORDED, field) end
  end
  mark(RELEASED .. ARGV[3])
  if ended then enter('released', {hold = ARGV[3], note = ARGV[6]}) end
  if kept then announce(kept)
  elseif ended then announce(bump(read_epoch())) end
end

-- ARGV: 3 note. Record a loss that is followed; once, although every worker sees it.
function step.lost()
  local said = tonumber((recorded() or {})[LOSS] or 0)
  if said and now - said < TOO_LATE then return end
  attempt('HSET', RECORDED, LOSS, int(now))
  enter('lost', {note = ARGV[3]})
end

-- The knowledge with which lost data was last restored (life, epoch, count of noticed writes), and the epoch of the first restoration.
local function last_restored()
  local text = redis.pcall('HGET', REGISTRY, RESTORED)
  local life, epoch, noticed, at = string.match(type(text) == 'string' and text or '', '^(%d+) (%d+) (%d+) (%d+)$')
  return {tonumber(life or 0), tonumber(epoch or 0), tonumber(noticed or 0)}, tonumber(at or 0)
end

local function compare(some, others)
  for i = 1, 3 do
    if some[i] ~= others[i] then return some[i] - others[i] end
  end
  return 0
end

local function opens(json)
  local decoded, hold = pcall(function() return cjson.decode(json) end)
  return decoded and type(hold) == 'table' and type(hold.state) == 'table' and hold.state.enabled == false
end

-- ARGV: 3 note; of what the caller knows: 4 life, 5 epoch, 6 count of noticed writes, 7 when it was read; 8 whether the registry shows a
-- rollback ('1'), which the epoch need not show, as after a step on rolled-back data.
-- From 9 on, for each switch: '', scope, value ('' for off), remaining time to live in ms (0 for none); for each live hold: id,
-- milliseconds left, since, JSON.
--
-- Make that state true again, unless it is too late. The first worker restores what it knows. Another one that knows as much adds what
-- is missing, for a minute; one that knows more also replaces what was restored. Nothing that was decided since is undone.
-- An old hold that newer knowledge lacks is ended if it opens; one that closes is left to its lease.
function step.restore()
  if reading().err then return end -- the reply would be an error, although the loss counts as restored
  local record, known, last, at = read_epoch(), recorded(), last_restored()
  local note, life, epoch, read_at = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[7])
  local mine, is_another = {life, epoch, tonumber(ARGV[6])}, record.incarnation ~= life
  local went_back, moved_on = not is_another and record.epoch < epoch, not is_another and record.epoch > epoch
  local moved_at = math.huge
  for past in string.gmatch(past_epochs(), '%d+') do
    if tonumber(past) > epoch then moved_at = math.min(moved_at, tonumber(past)) end
  end
  local first = went_back or not is_another and ARGV[8] == '1' and (not moved_on or now - moved_at < TOO_LATE)
  local again = last[1] == life and epoch < at
  if is_another then
    first = record.restored_from == 0 and (record.incarnation == 0 or now - record.incarnation < TOO_LATE)
    again = record.restored_from ~= 0
  end
  again = again and known and now - at < TOO_LATE
  local lead = again and compare(mine, last) or 1
  if lead < 0 or not (first or again) then return 'superseded' end
  known = known or {}
  if first and not is_another then -- what was decided before the loss is no decision about it
    for field, stamp in pairs(known) do
      if string.match(field, '^![:-]') and (tonumber(stamp) or 0) <= read_at then
        attempt('HDEL', RECORDED, field)
        known[field] = nil
      end
    end
  end
  local mentioned, changed = {}, false

  local function put_back(scope, value, px)
    local key = switch_of(scope)
    local is_decided = known[DECIDED .. scope] or scope == '' and record.decided > (is_another and 0 or epoch)
    if not key or is_decided then return end
    local status, text = read_switch(key)
    text = status == 'text' and (text or '') or status
    local ends, digested = string.match(known[scope] or '', '^(%d+) (.*)$')
    if text ~= '' then
      local is_known = digested == digest(text) and math.abs(tonumber(ends) - end_in(redis.call('PTTL', key))) <= 1000
      local is_older = again and lead > 0 or went_back or first and not is_another and not moved_on and value ~= ''
      if not (is_known and is_older) then return end
    elseif value == '' then return
    elseif (again or moved_on) and digested and (ends == '0' or tonumber(ends) > now / 1000) then return end -- deleted, and not noticed yet
    if put_switch(key, value, px, note) then enter('restored', {scope = scope, value = value, note = note}) end
    attempt('HDEL', RECORDED, DECIDED .. scope)
    changed = true
  end

  for i = 9, #ARGV, 4 do
    local id, left, since, json = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    mentioned[id] = true
    if id == '' then put_back(left, since, json)
    elseif tonumber(since) > record.cleared and not known[RELEASED .. id] then
      if redis.call('HSETNX', HOLDS, id, table.concat({int(now + tonumber(left) * 1000), since, json}, ' ')) == 1 then
        enter('restored', {hold = id, value = json, note = note})
        changed = true
      end
    end
  end
  local entries = lead > 0 and redis.pcall('HGETALL', HOLDS) or {}
  for i = 1, #entries, 2 do
    local since, json = string.match(entries[i + 1], '^%d+ (%d+) (.*)$')
    local is_old = since and tonumber(since) <= epoch and not (is_another and tonumber(since) >= record.incarnation)
    if is_old and (again or went_back) and not mentioned[entries[i]] and opens(json) then
      lapse(entries[i], json)
      changed = true
    end
  end

  if not changed and again then return 'superseded' end
  if not changed then enter('lost', {note = note}) end
  if is_another then record.restored_from = life end
  if record.incarnation == 0 then record.incarnation = math.max(now, life + 1) end
  record.epoch = math.max(record.epoch, epoch + tonumber(ARGV[8]))
  remember_epoch(epoch)
  announce(bump(record))
  attempt('HSET', REGISTRY, RESTORED, table.concat({int(life), int(epoch), int(mine[3]), int(again and at or record.epoch)}, ' '))
  return changed and 'restored' or 'nothing to restore'
end

local verdict = step[ARGV[1]]()
local reply = reading(verdict, (ARGV[1] == 'barrier' or ARGV[1] == 'workers') and call_roll())
reply[11] = unrecorded
return reply
