-- Everything that must happen in one atomic step. ARGV[1] names the step; every step ends with one consistent reading.
--
-- KEYS  1 switch (string)   2 holds (hash: id -> "deadline since json", microseconds of Redis' clock)
--       3 workers (hash: id -> "deadline json")   4 epoch (string: "epoch born parent cleared decided")
--       5 history (stream of changes)   6 recorded (hash: scope, '' for none -> "end digest" of the switch that the history knows of)
--       7 and on: switches of scopes, each called as the switch, a colon, and the scope
--
-- epoch    counts what no other key shows: taking and ending holds, clearing. Never goes back while it exists.
-- born     names this life of the data; another one, or none, means that the data was lost.
-- parent   the life that a worker has already restored into this one, 0 if none has.
-- cleared  the epoch at which somebody ended all holds; older holds may not be renewed.
-- decided  the epoch at which a step last set the switch, 0 if none has; over a decision no lost switch is put back.
--
-- A note is JSON of whoever changes something: by, host, pid, and what it is that is set. It ends up in the history as it is.

local SWITCH, HOLDS, WORKERS, EPOCH, HISTORY, RECORDED = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local FIRST_SCOPE = 7
local MAX_BYTES = 65536
local FORGET_AFTER = 60 * 1000000 -- a worker that vanished is still told of for a minute
local TOO_LATE = 60 * 1000000 -- lost data without which others have lived for a minute is not put back any more
local DIGITS = 16 -- no time that anybody means, in microseconds, has more
local FIELDS = {'epoch', 'born', 'parent', 'cleared', 'decided'}
local PARTS = {'scope', 'hold', 'note', 'value', 'error'} -- of an entry of the history, beside its kind
local MOST_ENTRIES = 1000 -- of the history, about
local MOST_KEPT = 2048 -- bytes of a value that the history keeps whole
local LOSS = '!' -- where the hash of what is recorded keeps when a loss was; no scope is called so

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

local function write_epoch(record)
  local numbers = {}
  for i, field in ipairs(FIELDS) do numbers[i] = int(record[field]) end
  redis.call('SET', EPOCH, table.concat(numbers, ' '))
end

local function bump(record)
  if record.born == 0 then record.born = now end
  record.epoch = math.max(now, record.epoch + 1)
  return record
end

-- A change that the switch alone does not show: count it, and tell whoever cannot be told by tracking.
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

-- Of somebody's JSON, where that is. Who only notices a change has not made it.
local function place_in(json)
  local decoded, who = pcall(function() return cjson.decode(json) end)
  if not (decoded and type(who) == 'table' and type(who.host) == 'string' and type(who.pid) == 'number') then return '' end
  return cjson.encode({host = who.host, pid = who.pid})
end

-- Take away a hold whose lease has run out; once, whoever notices.
local function lapse(id, json)
  if redis.pcall('HDEL', HOLDS, id) == 1 then enter('lapsed', {hold = id, value = json}) end
end

-- Remove what has run out, and let the key itself go when the last lease does.
local function sweep(key, grace)
  local entries, last = redis.call('HGETALL', key), 0
  for i = 1, #entries, 2 do
    local stamp = string.match(entries[i + 1], '^(%d+) ')
    local deadline = stamp and #stamp <= DIGITS and tonumber(stamp) or 0
    if deadline + grace <= now then
      if key == HOLDS and deadline > 0 then lapse(entries[i], string.match(entries[i + 1], '^%d+ %d* ?(.*)$'))
      else redis.call('HDEL', key, entries[i]) end
    end
    last = math.max(last, deadline)
  end
  if last > now then redis.call('PEXPIREAT', key, int(math.ceil((last + FORGET_AFTER) / 1000))) end
end

local function keep(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end

local function put_hold(id, since, json, lease_ms)
  redis.call('HSET', HOLDS, id, table.concat({int(now + tonumber(lease_ms) * 1000), int(since), json}, ' '))
  sweep(HOLDS, 0)
end

local function scope_of(key) return string.sub(key, #SWITCH + 2) end

-- The switch of a scope ('' or none for the general one). None that was not announced as a key is touched.
local function switch_of(scope)
  if not scope or scope == '' then return SWITCH end
  for i = FIRST_SCOPE, #KEYS do
    if scope_of(KEYS[i]) == scope then return KEYS[i] end
  end
end

local function is_wrong_type(reply) return string.find(reply.err, 'WRONGTYPE', 1, true) end

local function call_roll()
  local roll, entries = {}, redis.call('HGETALL', WORKERS)
  for i = 1, #entries, 2 do
    local deadline, report = string.match(entries[i + 1], '^(%d+) (.*)$')
    table.insert(roll, {entries[i], deadline or '0', report or ''})
  end
  return roll
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
  local ends, mark = string.match(known[scope] or '', '^(%d+) (.*)$')
  ends = tonumber(ends or 0)
  if mark == (text ~= '' and digest(text) or nil) then
    if text ~= '' and math.abs(ends - end_in(left)) > 1000 then remember(scope, text, left) end -- EXPIRE, or the same once more
    return
  end
  local ran_out = text == '' and ends > 0 and ends <= now / 1000
  enter(ran_out and 'expired' or 'noticed', {
    scope = scope, note = place_in(json), value = status == 'text' and value, error = status ~= 'text' and status,
  })
  remember(scope, text, left)
end

-- Set a switch, and say whether that has changed it. What was written past us before comes first in the history.
local function put_switch(key, value, px, json)
  local scope, known, status, before = scope_of(key), recorded(), read_switch(key)
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
  what.scope = scope
  if changed then enter('set', what) end
  local record = bump(read_epoch())
  if key == SWITCH then record.decided = record.epoch end
  return record
end

local function reading(verdict, roll)
  local status, value = read_switch(SWITCH)
  if not status then return {err = value.err} end
  local live, facts, scopes, over = {}, {}, {}, {}
  local left = redis.call('PTTL', SWITCH)
  local seen = {{'', status, value, left}}
  local entries = redis.pcall('HGETALL', HOLDS)
  if entries.err then
    if not is_wrong_type(entries) then return {err = entries.err} end
    live = false
  else
    for i = 1, #entries, 2 do
      local deadline, since, json = string.match(entries[i + 1], '^(%d+) (%d+) (.*)$')
      if not deadline or #deadline > DIGITS or #since > DIGITS then
        table.insert(live, {entries[i], '', '', ''})
      elseif tonumber(deadline) > now then
        table.insert(live, {entries[i], deadline, since, json})
        table.insert(facts, entries[i] .. '=' .. json)
      else
        table.insert(over, {entries[i], json})
      end
    end
  end
  for i = FIRST_SCOPE, #KEYS do
    local scope, state, text = scope_of(KEYS[i]), read_switch(KEYS[i])
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
    int(now), status, value, left, live,
    {int(record.epoch), int(record.born), int(record.parent)}, digest(table.concat(facts, '\n')), verdict or '',
    roll or {}, scopes,
  }, seen, over
end

local step = {}

function step.read() end

-- ARGV: 3 worker id, 4 its JSON, 5 lifetime in ms, 6 the `born` it knows, 7 the time at which it first registered with the switch that
-- it knows now, 8 at which it last registered, 0 if it has not. A registration older than the first shows that these data lack what it
-- read before: after a failover to a replica that lagged, where a bare SET leaves no other trace. One that is not older proves that a
-- switch which is gone was deleted. None at all, before it can have been forgotten, is one of data so old that it has run out in them.
function step.sync()
  local stamp = string.match(redis.call('HGET', WORKERS, ARGV[3]) or '', '^(%d+) ')
  if stamp and tonumber(stamp) < tonumber(ARGV[7] or 0) + tonumber(ARGV[5]) * 1000 then return 'rolled back' end
  if not stamp and now < tonumber(ARGV[8] or 0) + FORGET_AFTER then return 'rolled back' end
  local text = table.concat({int(now + tonumber(ARGV[5]) * 1000), ARGV[4]}, ' ')
  if redis.call('HSET', WORKERS, ARGV[3], text) == 1 then sweep(WORKERS, FORGET_AFTER) end
  keep(WORKERS, tonumber(ARGV[5]) + FORGET_AFTER / 1000)
  -- Who remembers an earlier life must not start a new one: it has something to restore first.
  if ARGV[6] == '0' and read_epoch().born == 0 then write_epoch(bump(read_epoch())) end
end

-- ARGV: 3 worker id. What remains for a minute tells a worker that left from one that was lost with the data.
function step.leave()
  redis.call('HSET', WORKERS, ARGV[3], int(now) .. ' left')
  keep(WORKERS, FORGET_AFTER / 1000)
end

-- Whoever has applied the epoch that this makes has read the switch as it is now, or later.
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
  if ended then enter('released', {hold = ARGV[3], note = ARGV[6]}) end
  if kept then announce(kept)
  elseif ended then announce(bump(read_epoch())) end
end

-- ARGV: 3 note. Whoever follows a loss says so; the others, who see the same, are quiet.
function step.lost()
  local said = tonumber((recorded() or {})[LOSS] or 0)
  if said and now - said < TOO_LATE then return end
  attempt('HSET', RECORDED, LOSS, int(now))
  enter('lost', {note = ARGV[3]})
end

-- ARGV: 3 value ('' for off), 4 its remaining time to live in ms (0 for none), 5 epoch and 6 `born` that the caller knows, 7 note.
-- From 8 on, for each live hold: id, deadline, since, JSON; or for the switch of a scope: '', scope, value, time to live as in 4.
-- Write them again, unless somebody already did or it is too late for that; a switch only where nobody has set it since, and a
-- hold only where nobody has ended it by force.
function step.restore()
  local record, epoch, born = read_epoch(), tonumber(ARGV[5]), tonumber(ARGV[6])
  local young = record.born == 0 or now - record.born < TOO_LATE
  local another_life = record.born ~= born and record.parent == 0 and young
  local went_back = record.born == born and record.epoch < epoch
  if not (another_life or went_back) then return 'superseded' end
  local decided = another_life and record.decided > 0
  local restored, held = ARGV[3] ~= '' and not decided and redis.call('EXISTS', SWITCH) == 0, false
  if restored then
    put_switch(SWITCH, ARGV[3], ARGV[4], ARGV[7])
    enter('restored', {value = ARGV[3], note = ARGV[7]})
  end
  for i = 8, #ARGV, 4 do
    local id, deadline, since, json = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    if id == '' then
      local key = switch_of(deadline)
      if key and redis.call('EXISTS', key) == 0 then
        put_switch(key, since, json, ARGV[7])
        enter('restored', {scope = deadline, value = since, note = ARGV[7]})
        restored = true
      end
    elseif tonumber(deadline) > now and tonumber(since) > record.cleared then
      if redis.call('HSETNX', HOLDS, id, table.concat({deadline, since, json}, ' ')) == 1 then
        enter('restored', {hold = id, value = json, note = ARGV[7]})
        held = true
      end
    end
  end
  if not (restored or held) then enter('lost', {note = ARGV[7]}) end
  sweep(HOLDS, 0)
  if another_life then record.parent = born end
  record.epoch = math.max(record.epoch, epoch)
  announce(bump(record))
  return restored and 'restored' or 'nothing to restore'
end

local verdict = step[ARGV[1]]()
local reply, seen, over = reading(verdict, (ARGV[1] == 'barrier' or ARGV[1] == 'workers') and call_roll())
if ARGV[1] == 'sync' and verdict ~= 'rolled back' and not reply.err then
  for _, hold in ipairs(over) do lapse(hold[1], hold[2]) end
  local known = recorded()
  for _, switch in ipairs(known and seen or {}) do notice(switch, known, ARGV[4]) end
end
reply[11] = unrecorded
return reply
