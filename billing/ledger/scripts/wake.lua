-- Make the period due now, even if it is parked or backing off. ARGV[3]: period.
-- Answers 0 for a period that is sealed or absent.
local header = header_of(ARGV[3])
if not header or header.state == 'sealed' then
    return 0
end
redis.call('HDEL', part(ARGV[3]), 'stuck')
unpark(ARGV[3])
redis.call('HSET', part(ARGV[3]), 'attempts', 0, 'crashes', 0)
redis.call('ZADD', SHARD .. ':due', now, member(ARGV[3]))
return 1
