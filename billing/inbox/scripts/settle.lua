-- Finish events of one subject. KEYS: due, waiting of the subject, pending, list of the new status.
-- ARGV: subject, status, failure or '', ms that a finished record is kept, prefix of records, the events.
-- An event that somebody else finished meanwhile stays as it is.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
for i = 6, #ARGV do
    local id, record = ARGV[i], ARGV[5] .. ARGV[i]
    if redis.call('SREM', KEYS[2], id) == 1 then
        redis.call('ZREM', KEYS[3], id)
        redis.call('ZADD', KEYS[4], redis.call('HGET', record, 'n'), id)
        redis.call('HSET', record, 'status', ARGV[2], 'processed', ms, 'failure', ARGV[3])
        redis.call('PEXPIRE', record, ARGV[4])
    end
end
if redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('ZREM', KEYS[1], ARGV[1])
else -- more came while these were worked on
    redis.call('ZADD', KEYS[1], ms, ARGV[1])
end
return 1
