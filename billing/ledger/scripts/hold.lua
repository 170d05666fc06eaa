-- Stop billing a customer. ARGV[3]: by whom and why, as JSON, [4]: what it is about, '' when it may be
-- made again: a hold that was made about something, and released, is not made about it once more.
-- Answers {made, `since_ms json`}, the latter false when nothing is held.
local about = 'held:' .. ARGV[4]
if redis.call('HEXISTS', CUSTOMER, about) == 1 then
    return { 0, redis.call('HGET', CUSTOMER, 'hold') }
end
local made = redis.call('HSETNX', CUSTOMER, 'hold', string.format('%.0f %s', now, ARGV[3]))
if made == 1 and ARGV[4] ~= '' then
    redis.call('HSET', CUSTOMER, about, now)
end
return { made, redis.call('HGET', CUSTOMER, 'hold') }
