-- Remove a log's entries that are older than an id. KEYS[1]: the log, a stream; [2]: outcomes by entry, [3]:
-- entries by idempotency key, both hashes. ARGV[1]: the first id that stays. Returns the number of removed entries.
local removed = redis.call('XRANGE', KEYS[1], '-', '(' .. ARGV[1])
if #removed == 0 then
    return 0
end
local old = {}
for _, entry in ipairs(removed) do
    old[entry[1]] = true
    redis.call('HDEL', KEYS[2], entry[1])
end
local by_key = redis.call('HGETALL', KEYS[3])
for i = 1, #by_key, 2 do
    if old[string.match(by_key[i + 1], '^%S+')] then
        redis.call('HDEL', KEYS[3], by_key[i])
    end
end
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
return #removed
