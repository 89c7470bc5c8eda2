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
-- KEYS: unacked, owners, taken, delayed, lists...   ARGV: owner, lease ms, how many, first tag
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
local left, tag = tonumber(ARGV[3]), tonumber(ARGV[4])
for i = 5, #KEYS do
  if left <= 0 then break end
  local got = redis.pcall('RPOP', KEYS[i], left)
  if got and not got.err then
    local fields = {}
    for _, envelope in ipairs(got) do
      fields[#fields + 1] = tag
      fields[#fields + 1] = KEYS[i] .. '\\n' .. envelope
      answer[#answer + 1] = i - 5
      answer[#answer + 1] = envelope
      tag = tag + 1
      left = left - 1
    end
    redis.call('HSET', KEYS[1], unpack(fields))
  end
end
redis.pcall('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
local first = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
if first[2] then answer[1] = math.max(0, math.ceil(first[2] - now)) end
return answer
"""
)
"""Takes messages off the lists and notes them as ours, atomically; moves what has become due to its list first."""

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
