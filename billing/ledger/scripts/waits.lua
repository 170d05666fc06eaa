-- How long the foremost of a shard has waited in each line, in ms: negative until it is due, false where
-- nobody is. Answers those of `first`, `due` and `untold`, and how many are parked.
local function waited(line)
    local _, since = unpack(redis.call('ZRANGE', SHARD .. ':' .. line, 0, 0, 'WITHSCORES'))
    return since and now - since or false
end
return { waited('first'), waited('due'), waited('untold'), redis.call('ZCARD', SHARD .. ':parked') }
