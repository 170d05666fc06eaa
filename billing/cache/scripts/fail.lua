-- Release a load lock after a failed load. KEYS: entry. ARGV: token, ms for which the lock stays unavailable.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
    return 0
end
redis.call('HDEL', KEYS[1], 'token', 'until')
redis.call('HSET', KEYS[1], 'failed', now_ms() + ARGV[2])
return 1
