-- Stop billing a customer. ARGV[3]: author and reason as JSON, [4]: cause, '' for a repeatable hold: a
-- hold with a cause is placed only once for that cause, even after its release. While another hold is
-- active it is queued for that one's release.
-- Answers {placed, `since_ms json` of the active hold}, the latter false if there is none.
local cause, content = 'held:' .. ARGV[4], string.format('%.0f %s', now, ARGV[3])
if redis.call('HEXISTS', CUSTOMER, cause) == 1 then
    return { 0, redis.call('HGET', CUSTOMER, 'hold') }
end
local placed = redis.call('HSETNX', CUSTOMER, 'hold', content)
if ARGV[4] ~= '' then
    redis.call('HSET', CUSTOMER, cause, now)
    if placed == 0 then
        redis.call('RPUSH', CUSTOMER .. ':holds', content)
    end
end
local active = redis.call('HGET', CUSTOMER, 'hold')
list_hold(active)
return { placed, active }
