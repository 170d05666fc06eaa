-- Take due members of a shard; whoever dies with one finds it due again when it becomes visible.
-- ARGV[3]: at most so many, [4]: ms until visible. Answers the members, `customer|period`.
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])
for _, each in ipairs(due) do
    redis.call('ZADD', KEYS[1], 'XX', now + ARGV[4], each)
end
return due
