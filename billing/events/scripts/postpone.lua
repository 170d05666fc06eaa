-- Release the claimed events of one subject, to be claimed again later. KEYS: due.
-- ARGV: subject, failure, ms until then, 1 if this attempt does not count (is forgiven),
--       prefix of records, then the events. Events that another worker finished stay as they are.
require_whole_slot(KEYS[1])
local ms = now_ms()
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
