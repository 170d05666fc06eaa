-- Report the backlog of a shard: the longest wait in `first`, `due` and `untold` in ms (negative until it
-- is due, false if empty), the number of parked periods, the number of customers on hold, the age of the
-- oldest hold, and the number of customers of whom the ledger has lost usage that an invoice shows, and the
-- number of unbillable periods of deleted customers, the number of differences in the books and their sums by
-- currency.
local function waited(queue)
    local _, since = unpack(redis.call('ZRANGE', SHARD .. ':' .. queue, 0, 0, 'WITHSCORES'))
    return since and now - since or false
end

-- Usage of a customer on hold waits on purpose, and unbillable usage for a person; both are skipped.
local function unsynced()
    local from, page = 0, nil
    repeat
        page = redis.call('ZRANGE', SHARD .. ':untold', from, from + 19, 'WITHSCORES')
        for i = 1, #page, 2 do
            local customer = SHARD .. ':' .. string.match(page[i], '^[^|]+')
            if redis.call('HEXISTS', customer, 'hold') == 0
                and not redis.call('ZSCORE', SHARD .. ':unbillable', page[i]) then
                return now - page[i + 1]
            end
        end
        from = from + 20
    until #page == 0
    return false
end

return {
    waited('first'), waited('due'), unsynced(), redis.call('ZCARD', SHARD .. ':parked'),
    redis.call('ZCARD', SHARD .. ':held'), waited('held'), redis.call('ZCARD', SHARD .. ':rewound'),
    redis.call('ZCARD', SHARD .. ':unbillable'), redis.call('HLEN', SHARD .. ':books'),
    redis.call('HGETALL', SHARD .. ':books:sums'),
}
