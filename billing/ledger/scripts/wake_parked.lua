-- Make every parked period of a shard due now, because the cause may be resolved. Answers their number.
local parked = redis.call('ZRANGE', SHARD .. ':parked', 0, -1)
for _, entry in ipairs(parked) do
    local key = SHARD .. ':' .. string.gsub(entry, '|', ':')
    if redis.call('HEXISTS', key, 'state') == 1 then
        redis.call('HDEL', key, 'stuck')
        redis.call('HSET', key, 'attempts', 0, 'crashes', 0)
        redis.call('ZADD', KEYS[1], now, entry)
    end
end
redis.call('DEL', SHARD .. ':parked')
return #parked
