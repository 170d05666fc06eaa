-- Give events of one subject back, to be claimed again later. KEYS: due.
-- ARGV: subject, failure, ms until then, 1 when this attempt shall not count against them,
--       prefix of records, then the events.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
for i = 6, #ARGV do
    local record = ARGV[5] .. ARGV[i]
    redis.call('HSET', record, 'failure', ARGV[2])
    if ARGV[4] == '1' then
        redis.call('HSET', record, 'strikes', 0)
    end
end
redis.call('ZADD', KEYS[1], 'XX', ms + ARGV[3], ARGV[1])
return 1
