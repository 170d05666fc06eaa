-- Take what goes before everybody's turn: periods that close, and those that somebody asked about.
-- ARGV[3]: at most so many, [4]: ms until visible. Answers the members, `customer|period`.
-- `first` only points at them: whether one is still urgent, and due, is asked of the period itself.
local first, taken = SHARD .. ':first', {}

local function urgent(each)
    local key = SHARD .. ':' .. string.gsub(each, '|', ':')
    local state, asked = unpack(redis.call('HMGET', key, 'state', 'asked'))
    return state == 'closing' or state == 'open' and asked
end

for _, each in ipairs(redis.call('ZRANGEBYSCORE', first, '-inf', now, 'LIMIT', 0, 100)) do
    local due = redis.call('ZSCORE', KEYS[1], each)
    if not (due and urgent(each)) then
        redis.call('ZREM', first, each)
    elseif tonumber(due) > now then
        redis.call('ZADD', first, due, each)
    elseif #taken < tonumber(ARGV[3]) then
        taken[#taken + 1] = each
        redis.call('ZADD', KEYS[1], now + ARGV[4], each)
        redis.call('ZADD', first, now + ARGV[4], each)
    end
end
return taken
