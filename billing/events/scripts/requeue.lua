-- Make an event pending and due again. KEYS: record, pending, due, waiting of its subject,
--       lists of the other statuses. ARGV: id, subject.
-- Returns 0 if the event is not stored.
require_whole_slot(KEYS[1])
local n, attempts = unpack(redis.call('HMGET', KEYS[1], 'n', 'attempts'))
if not n then
    return 0
end
for i = 5, #KEYS do
    redis.call('ZREM', KEYS[i], ARGV[1])
end
redis.call('ZADD', KEYS[2], n, ARGV[1])
redis.call('HSET', KEYS[1], 'status', 'PENDING', 'forgiven', attempts)
redis.call('HDEL', KEYS[1], 'processed', 'failure')
redis.call('PERSIST', KEYS[1])
redis.call('SADD', KEYS[4], ARGV[1])
redis.call('ZADD', KEYS[3], now_ms(), ARGV[2])
return 1
