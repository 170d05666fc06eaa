-- Request a sync. ARGV[3]: trigger, [4]: author, [5]: ms within which a worker polls, [6]: length of the
-- sync history, [7]: the period to sync, '' for the current one.
-- A request joins a queued sync. Answers the sync's number, 1 if it joined, and the sync.
local state = redis.call('HGET', part(ARGV[7]), 'state')
local current = (state == 'open' or state == 'closing') and ARGV[7] or current_period()
local header = header_of(current) or begun(current)
for _, period in ipairs(redis.call('ZRANGEBYSCORE', CUSTOMER .. ':periods', 'inf', 'inf')) do
    redis.call('ZADD', SHARD .. ':due', 'LT', now + ARGV[5], member(period))
end
redis.call('ZADD', SHARD .. ':first', 'LT', now + ARGV[5], member(current))
redis.call('HSET', part(current), 'asked', 1)
local waiting = syncs_in(header.waiting)
if #waiting > 0 then
    local n = waiting[#waiting]
    return { n, 1, redis.call('HGETALL', sync_key(n)) }
end
local n = new_sync(current, 'QUEUED', ARGV[3], ARGV[4], tonumber(ARGV[6]), now)
redis.call('HSET', part(current), 'waiting', n)
return { n, 0, redis.call('HGETALL', sync_key(n)) }
