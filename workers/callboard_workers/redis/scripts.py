"""What happens inside Redis, each in one step.

Every script makes its first write one that Redis allows at `maxmemory` (a pop or a delete): after it the others are
allowed too, so a full server is drained and nothing is half done. Times are Redis' own, in milliseconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

_NOW = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"


@dataclass(frozen=True)
class Script:
    """A Lua script and the name Redis knows it by once it is loaded."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())

    def call(self, keys: Sequence[str | bytes], args: Sequence[str | int | bytes]) -> tuple[str | int | bytes, ...]:
        """The command that runs it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)


FETCH = Script(
    _NOW
    + """
-- KEYS: unacked, owners, taken, delayed, sorted, lists...
-- ARGV: owner, lease ms, how many, first tag, how many that are not critical, prefix of turns, how many to sort,
--   for each list the number of its queue (negative where it is critical), for each queue how many of it
-- answers {-2} when this owner was taken for dead, else
-- {ms until the next delayed one or -1, Redis' time in ms, list no., envelope, list no., envelope, ...}
if redis.call('EXISTS', KEYS[3]) == 1 then return {-2} end
local due = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 200)
for _, member in ipairs(due) do
  redis.call('ZREM', KEYS[4], member)
  local cut = string.find(member, '\\n', 1, true)
  local pushed = redis.pcall('LPUSH', string.sub(member, 1, cut - 1), string.sub(member, cut + 1))
  if type(pushed) == 'table' then redis.call('ZADD', KEYS[4], now + 60000, member) end
end
local answer = {-1, now}
local left, tag, ordinary, lists = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), #KEYS - 5
local sorted = redis.call('HGETALL', KEYS[5])
for i = 1, #sorted, 2 do sorted[sorted[i]] = true end

local function tenant_of(envelope)
  if not string.find(envelope, '"durable":true', 1, true) then return nil end
  return string.match(envelope, '"tenant_id":"([%x%-]+)"') or '-'
end
local function sort(list, envelopes)
  -- doorbells go to their tenants' lists, others come back; a tenant that is new there takes the last turn
  local own, rest, moved = {}, {}, 0
  for _, envelope in ipairs(envelopes) do
    local tenant = tenant_of(envelope)
    if tenant then
      own[tenant] = own[tenant] or {}
      table.insert(own[tenant], envelope)
      if #own[tenant] == 1 then table.insert(own, tenant) end
      moved = moved + 1
    else
      rest[#rest + 1] = envelope
    end
  end
  local turns = ARGV[6] .. list
  for _, tenant in ipairs(own) do
    if redis.call('LPUSH', turns .. ':' .. tenant, unpack(own[tenant])) == #own[tenant] then
      redis.call('LPUSH', turns, tenant)
    end
  end
  if moved > 0 then redis.call('HINCRBY', KEYS[5], list, moved) sorted[list] = true end
  return rest
end
local function in_turns(list, count, got)
  local turns, before = ARGV[6] .. list, #got
  while #got - before < count do
    local tenant = redis.call('RPOP', turns)
    if not tenant then break end
    local own = turns .. ':' .. tenant
    local most = redis.call('EXISTS', turns) == 0 and count - (#got - before) or 1  -- alone, it takes all turns
    for _, envelope in ipairs(redis.call('RPOP', own, most) or {}) do got[#got + 1] = envelope end
    if redis.call('EXISTS', own) == 1 then redis.call('LPUSH', turns, tenant) end
  end
  if redis.call('EXISTS', turns) == 0 then
    redis.call('HDEL', KEYS[5], list)
    sorted[list] = nil
  else
    redis.call('HINCRBY', KEYS[5], list, before - #got)
  end
end
local function take(list, count)
  local got = {}
  if sorted[list] then in_turns(list, math.ceil(count / 2), got) end
  local popped = #got < count and redis.pcall('RPOP', list, count - #got)
  if popped and not popped.err then
    if sorted[list] or (#popped == count and redis.call('EXISTS', list) == 1) then
      local rest = sort(list, popped)
      for _, envelope in ipairs(rest) do got[#got + 1] = envelope end
      if #rest < #popped then
        local more = redis.call('RPOP', list, ARGV[7])
        rest = more and sort(list, more) or {}
        for i = #rest, 1, -1 do redis.call('RPUSH', list, rest[i]) end
      end
    else
      for _, envelope in ipairs(popped) do got[#got + 1] = envelope end
    end
  end
  if sorted[list] and #got < count then in_turns(list, count - #got, got) end
  return got
end

for i = 1, lists do
  if left <= 0 then break end
  local list, queue = KEYS[i + 5], tonumber(ARGV[i + 7])
  local critical, at = queue < 0, 7 + lists + math.abs(queue)
  local count = critical and left or math.min(left, ordinary, tonumber(ARGV[at]))
  if count > 0 then
    local got, fields = take(list, count), {}
    for _, envelope in ipairs(got) do
      fields[#fields + 1] = tag
      fields[#fields + 1] = list .. '\\n' .. envelope
      answer[#answer + 1] = i - 1
      answer[#answer + 1] = envelope
      tag = tag + 1
    end
    if #got > 0 then redis.call('HSET', KEYS[1], unpack(fields)) end
    left = left - #got
    if not critical then
      ordinary = ordinary - #got
      ARGV[at] = tonumber(ARGV[at]) - #got
    end
  end
end
redis.pcall('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
local first = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
if first[2] then answer[1] = math.max(0, math.ceil(first[2] - now)) end
return answer
"""
)
"""Takes messages off the lists and notes them as ours, atomically; moves what has become due to its list first.

Where more waits in a list than is taken, its doorbells are moved to lists of their tenants, which then take turns: a
flood of one tenant delays another's message by one message of each tenant, not by all that arrived before it. What is
sorted may be lost, as every doorbell: its row is rung for again. Messages without a row are never moved; they share a
list's turn evenly with the doorbells. The order is kept among the doorbells of one tenant.
"""

RENEW = Script(
    _NOW
    + """
-- KEYS: owners, taken   ARGV: owner, lease ms
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.pcall('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return 1
"""
)
"""Says that an owner lives; 0 when it was taken for dead."""

HEARTBEAT = Script(
    _NOW
    + """
-- KEYS: heartbeats   ARGV: node#process, JSON
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], now .. '\\n' .. ARGV[2])
redis.call('EXPIRE', KEYS[1], 3600)
if redis.call('HLEN', KEYS[1]) > 500 then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    if now - tonumber(string.match(all[i + 1], '^%d+')) > 600000 then redis.call('HDEL', KEYS[1], all[i]) end
  end
end
return 1
"""
)
"""Reports a worker process at the time of Redis' clock; past 500 processes, drops reports older than ten minutes."""

TAKE = Script(
    _NOW
    + """
-- KEYS: owners, mine   ARGV: me, prefix of unacked keys, prefix of taken keys, seconds to remember, lease ms
-- answers {owner, field, list key and envelope, ...} or nothing
for _, owner in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 5)) do
  if owner ~= ARGV[1] then
    redis.call('ZREM', KEYS[1], owner)
    redis.call('SET', ARGV[3] .. owner, ARGV[1], 'EX', ARGV[4])
    local held = redis.call('HGETALL', ARGV[2] .. owner)
    local answer, begun = {owner}, {}
    for i = 1, #held, 2 do
      if string.sub(held[i], 1, 2) == 's:' then begun[string.sub(held[i], 3)] = true end
    end
    if #held == 2 and tonumber(held[1]) then begun[held[1]] = true end
    for i = 1, #held, 2 do
      if string.sub(held[i], 1, 2) ~= 's:' then
        local name = 'r:' .. owner .. ':' .. held[i]
        if begun[held[i]] then name = name .. ':s' end
        redis.call('HSET', KEYS[2], name, held[i + 1])
        answer[#answer + 1] = name
        answer[#answer + 1] = held[i + 1]
      end
    end
    redis.call('DEL', ARGV[2] .. owner)
    redis.pcall('ZADD', KEYS[1], 'NX', now + ARGV[5], ARGV[1])
    return answer
  end
end
return {}
"""
)
"""Takes over what one dead owner held. The taker holds it until it has put every message back: it may die too.
It is an owner from then on, even if it signed off meanwhile: what it was sent before its end may be run after it.

The name of a field ends in `:s` when its message had begun to run: it was marked, or there was no other that its worker
could have died of, be it only of reading it.
"""

MARK = Script(
    """
-- KEYS: unacked, taken   ARGV: fields...
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
for _, field in ipairs(ARGV) do
  if redis.call('HEXISTS', KEYS[1], field) == 1 then redis.pcall('HSET', KEYS[1], 's:' .. field, 1) end
end
return 1
"""
)
"""Notes that messages in hand have begun to run."""

PUT_BACK = Script(
    """
-- KEYS: unacked, list   ARGV: field, envelope
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[1], 's:' .. ARGV[1])
redis.call('RPUSH', KEYS[2], ARGV[2])
return 1
"""
)
"""Gives a message back, to be served next; nothing if it is not ours any more."""

PARK = Script(
    _NOW
    + """
-- KEYS: unacked, delayed, list   ARGV: field, envelope, delay ms
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[1], 's:' .. ARGV[1])
redis.call('ZADD', KEYS[2], now + ARGV[3], KEYS[3] .. '\\n' .. ARGV[2])
return 1
"""
)
"""Puts a message off; nothing if it is not ours any more."""

BURY = Script(
    """
-- KEYS: unacked, dead   ARGV: field, letter, how many to keep
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[1], 's:' .. ARGV[1])
redis.call('LPUSH', KEYS[2], ARGV[2])
redis.call('LTRIM', KEYS[2], 0, ARGV[3] - 1)
return 1
"""
)
"""Puts a message with the dead letters; nothing if it is not ours any more."""

REVIVE = Script(
    """
-- KEYS: dead, list   ARGV: letter, envelope
if redis.call('LREM', KEYS[1], -1, ARGV[1]) == 0 then return 0 end
redis.call('LPUSH', KEYS[2], ARGV[2])
return 1
"""
)
"""Puts a dead letter back on its list; nothing if somebody else has."""

LEAVE = Script(
    """
-- KEYS: owners, unacked   ARGV: owner
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
"""
)
"""Signs an owner off that holds nothing any more."""

STORE = Script(
    """
-- KEYS: results...   ARGV: value, seconds to keep it (0: for ever), ...
for i, key in ipairs(KEYS) do
  local value, keep = ARGV[i * 2 - 1], tonumber(ARGV[i * 2])
  local old = redis.pcall('GET', key)
  local known, meta = false, nil
  if type(old) == 'string' then known, meta = pcall(cjson.decode, old) end
  if not (known and type(meta) == 'table' and meta.status == 'SUCCESS') then
    if keep > 0 then redis.call('SET', key, value, 'EX', keep) else redis.call('SET', key, value) end
    redis.call('PUBLISH', key, value)
  end
end
return #KEYS
"""
)
"""Stores results and tells who waits for them, as Celery's backend does; a SUCCESS that is stored stays."""

ALL = (FETCH, RENEW, TAKE, MARK, PUT_BACK, PARK, BURY, LEAVE)
