-- Claim priority members of a shard: closing periods and requested syncs.
-- ARGV[3]: limit, [4]: ms until visible. Answers the members, `customer|period`.
-- `first` is only an index: the period's own fields decide if a member is still urgent and due.
local first, taken = SHARD .. ':first', {}

local function urgent(entry)
    local key = SHARD .. ':' .. string.gsub(entry, '|', ':')
    local state, requested = unpack(redis.call('HMGET', key, 'state', 'asked'))
    return state == 'closing' or state == 'open' and requested
end

for _, entry in ipairs(redis.call('ZRANGEBYSCORE', first, '-inf', now, 'LIMIT', 0, 100)) do
    local due = redis.call('ZSCORE', KEYS[1], entry)
    if not (due and urgent(entry)) then
        redis.call('ZREM', first, entry)
    elseif tonumber(due) > now then
        redis.call('ZADD', first, due, entry)
    elseif #taken < tonumber(ARGV[3]) then
        taken[#taken + 1] = entry
        redis.call('ZADD', KEYS[1], now + ARGV[4], entry)
        redis.call('ZADD', first, now + ARGV[4], entry)
    end
end
return taken
