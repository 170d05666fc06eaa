-- Record an action before it is done, once per key. KEYS[1]: the log, a stream; [2]: entries by key, a
-- hash. ARGV[1]: the key, [2]: digest of the request, then the entry's fields and values.
-- Returns the entry's id, 1 if this call wrote it, the digest that it was written with, and its last
-- value: the values before the action.
local known = redis.call('HGET', KEYS[2], ARGV[1])
if known then
    local id, digest = string.match(known, '^(%S+) (%S+)$')
    local fields = redis.call('XRANGE', KEYS[1], id, id)[1][2]
    return { id, 0, digest, fields[#fields] }
end
local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
redis.call('HSET', KEYS[2], ARGV[1], id .. ' ' .. ARGV[2])
return { id, 1, ARGV[2], ARGV[#ARGV] }
