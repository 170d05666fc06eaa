-- Record by how much ledger and Stripe differ where they ought to agree. ARGV[3]: entry of the books,
-- [4]: the difference in minor units, 0 if there is none. The shard's sum by currency follows.
local books, amount = SHARD .. ':books', tonumber(ARGV[4])
local before = tonumber(redis.call('HGET', books, ARGV[3]) or '0')
if amount == 0 then
    redis.call('HDEL', books, ARGV[3])
else
    redis.call('HSET', books, ARGV[3], string.format('%.0f', amount))
end
if amount ~= before then
    local currency = redis.call('HGET', CUSTOMER, 'currency') or ''
    redis.call('HINCRBY', SHARD .. ':books:sums', currency, string.format('%.0f', amount - before))
end
return 1
