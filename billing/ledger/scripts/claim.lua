-- Claim due members of a shard; a claimed member becomes visible, and due, again after a while.
-- ARGV[3]: limit, [4]: ms until visible. Answers the members, `customer|period`.
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])
for _, entry in ipairs(due) do
    redis.call('ZADD', KEYS[1], 'XX', now + ARGV[4], entry)
end
return due
