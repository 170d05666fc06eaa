-- How long the foremost of a shard has waited in each line, in ms: negative until it is due, false where
-- nobody is. Answers those of `first`, `due` and `untold`, how many are parked, how many customers are
-- held, and how long the first of these has been.
local function waited(line)
    local _, since = unpack(redis.call('ZRANGE', SHARD .. ':' .. line, 0, 0, 'WITHSCORES'))
    return since and now - since or false
end

-- Usage of a customer who is held is meant to wait, and is passed over.
local function untold()
    local from, page = 0, nil
    repeat
        page = redis.call('ZRANGE', SHARD .. ':untold', from, from + 19, 'WITHSCORES')
        for i = 1, #page, 2 do
            local customer = SHARD .. ':' .. string.match(page[i], '^[^|]+')
            if redis.call('HEXISTS', customer, 'hold') == 0 then
                return now - page[i + 1]
            end
        end
        from = from + 20
    until #page == 0
    return false
end

return {
    waited('first'), waited('due'), untold(), redis.call('ZCARD', SHARD .. ':parked'),
    redis.call('ZCARD', SHARD .. ':held'), waited('held'),
}
