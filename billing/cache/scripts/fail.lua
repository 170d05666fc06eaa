-- Release a load lock after a failed load. KEYS: entry. ARGV: token, ms for which the lock stays unavailable.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
    return 0
end
redis.call('HDEL', KEYS[1], 'token', 'until')
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'failed', now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2])
return 1
