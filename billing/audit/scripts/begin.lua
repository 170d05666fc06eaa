-- Write down what is about to be done, once per key. KEYS[1]: the log, a stream; [2]: entries by key, a
-- hash. ARGV[1]: the key, [2]: digest of what is asked, then the entry's fields and values.
-- Answers the entry's id, whether this call wrote it, the digest that it was written with, and its last
-- value: what stood before.
local known = redis.call('HGET', KEYS[2], ARGV[1])
if known then
    local id, digest = string.match(known, '^(%S+) (%S+)$')
    local said = redis.call('XRANGE', KEYS[1], id, id)[1][2]
    return { id, 0, digest, said[#said] }
end
local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
redis.call('HSET', KEYS[2], ARGV[1], id .. ' ' .. ARGV[2])
return { id, 1, ARGV[2], ARGV[#ARGV] }
