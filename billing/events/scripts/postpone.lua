-- Give events of one subject back, to be claimed again later. KEYS: due.
-- ARGV: subject, failure, ms until then, 1 when this attempt shall not count against them,
--       prefix of records, then the events. What somebody else finished meanwhile stays as it is.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
for i = 6, #ARGV do
    local record = ARGV[5] .. ARGV[i]
    local status, attempts = unpack(redis.call('HMGET', record, 'status', 'attempts'))
    if status == 'PENDING' then
        redis.call('HSET', record, 'failure', ARGV[2])
        if ARGV[4] == '1' then
            redis.call('HSET', record, 'forgiven', attempts)
        end
    end
end
redis.call('ZADD', KEYS[1], 'XX', ms + ARGV[3], ARGV[1])
return 1
