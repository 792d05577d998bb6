-- Elect the worker that notifies of a change: one at a time, and each change once unless that worker dies meanwhile.
--
-- KEYS  1 told (hash: state, before, at, teller, until)
--
-- state   the last state that was notified of, or is      before  the one notified of before that
-- at      when it was confirmed, in microseconds         teller  the worker that claims to notify
-- until   when the claim ends, 0 once it was notified of
--
-- ARGV  1 step, 2 teller; claim: 3 before, 4 state, 5 at, 6 lease in ms; renew: 3 lease in ms

local TOLD, teller = KEYS[1], ARGV[2]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local function int(number) return string.format('%.0f', number) end

local known, entries = {}, redis.call('HGETALL', TOLD)
for i = 1, #entries, 2 do known[entries[i]] = entries[i + 1] end
local deadline = tonumber(known['until'] or 0) or 0

local step = {}

function step.claim()
  local before, at = known.state or ARGV[3], tonumber(known.at or 0) or 0
  -- A claim that has expired: its worker died, before or after it notified. So that is done again, or taken for done.
  if deadline ~= 0 and before == ARGV[4] then before = known.before or ARGV[3] end
  if deadline > now then return {'wait', ''} end -- another worker is notifying
  if deadline == 0 and before == ARGV[4] then return {'told', ''} end
  -- Another worker has a newer state. Except if its time is in the future: then the clock was set.
  if at > tonumber(ARGV[5]) and at <= now then return {'wait', ''} end
  redis.call('HSET', TOLD, 'state', ARGV[4], 'before', before, 'at', ARGV[5], 'teller', teller, 'until', int(now + tonumber(ARGV[6]) * 1000))
  return {'tell', before}
end

function step.renew()
  if known.teller ~= teller then return {'lost', ''} end
  redis.call('HSET', TOLD, 'until', int(now + tonumber(ARGV[3]) * 1000))
  return {'renewed', ''}
end

function step.done()
  if known.teller == teller then redis.call('HSET', TOLD, 'until', '0') end
  return {'told', ''}
end

return step[ARGV[1]]()
