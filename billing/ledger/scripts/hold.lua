-- Stop billing a customer. ARGV[3]: by whom and why, as JSON, [4]: what it is about, '' when it may be
-- made again: a hold that was made about something, and released, is not made about it once more. While
-- another hold stands it waits for that one's release.
-- Answers {made, `since_ms json`}, the latter false when nothing is held.
local about, said = 'held:' .. ARGV[4], string.format('%.0f %s', now, ARGV[3])
if redis.call('HEXISTS', CUSTOMER, about) == 1 then
    return { 0, redis.call('HGET', CUSTOMER, 'hold') }
end
local made = redis.call('HSETNX', CUSTOMER, 'hold', said)
if ARGV[4] ~= '' then
    redis.call('HSET', CUSTOMER, about, now)
    if made == 0 then
        redis.call('RPUSH', CUSTOMER .. ':holds', said)
    end
end
local stands = redis.call('HGET', CUSTOMER, 'hold')
list_hold(stands)
return { made, stands }
