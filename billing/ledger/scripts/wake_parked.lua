-- Look again at every parked period of a shard: what parked it may be cured. Answers how many.
local parked = redis.call('ZRANGE', SHARD .. ':parked', 0, -1)
for _, each in ipairs(parked) do
    local key = SHARD .. ':' .. string.gsub(each, '|', ':')
    redis.call('HDEL', key, 'stuck')
    redis.call('HSET', key, 'attempts', 0, 'crashes', 0)
    redis.call('ZADD', KEYS[1], now, each)
end
redis.call('DEL', SHARD .. ':parked')
return #parked
