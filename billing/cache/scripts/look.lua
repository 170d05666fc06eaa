-- Look up entries, and acquire the load locks of those that have to be loaded.
-- KEYS: for each entry its key, then its generations.
-- ARGV: nonce, ms until a load lock expires ('': acquire none), lifetime of a generation in ms, then the
--       number of generations of each entry.
-- Returns for each entry: state, generations, token or '', value or '', ms it stays fresh, ms it stays usable.
--   hit     fresh
--   stale   usable; with a token, this caller has the lock and refreshes it
--   miss    not usable; with a token, this caller has the lock and loads it
--   wait    another caller is loading it under the current generations
--   failed  the last load failed, and its cooldown has not ended
-- The token identifies the acquired load lock. The value is the last stored one, valid or not.
local ms = now_ms()
local nonce, lease, lifetime = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local answers, k = {}, 1

local function generations(first, last)
    local found = {}
    for i = first, last do
        local value = redis.call('GET', KEYS[i])
        if not value then -- evicted or new: a value under which no entry was ever filled
            value = string.format('%.0f.%s.%d', ms, nonce, i)
            redis.call('SET', KEYS[i], value, 'PX', lifetime)
        end
        found[#found + 1] = value
    end
    return table.concat(found, ' ')
end

local function order(entry, standing, i)
    local token = nonce .. '.' .. i
    redis.call('HSET', entry, 'token', token, 'under', standing, 'until', ms + lease)
    redis.call('HDEL', entry, 'failed')
    if redis.call('PTTL', entry) < lease then
        redis.call('PEXPIRE', entry, lease)
    end
    return token
end

for i = 4, #ARGV do
    local entry, last = KEYS[k], k + tonumber(ARGV[i])
    local standing = generations(k + 1, last)
    local stored = redis.call('HMGET', entry, 'value', 'generations', 'fresh', 'usable',
        'token', 'under', 'until', 'failed')
    local valid = stored[2] == standing
    local fresh = valid and stored[3] - ms or 0
    local usable = valid and stored[4] - ms or 0
    -- A load that began under other generations is void: no caller waits for it.
    local current = stored[6] == standing
    local loading = current and stored[5] and tonumber(stored[7]) > ms
    local failed = current and stored[8] and tonumber(stored[8]) > ms

    local state, token = 'hit', ''
    if fresh <= 0 then
        if lease and not loading and not failed then
            token = order(entry, standing, i)
        end
        if usable > 0 then
            state = 'stale'
        elseif failed then
            state = 'failed'
        elseif loading then
            state = 'wait'
        else
            state = 'miss'
        end
    end
    answers[#answers + 1] = {state, standing, token, stored[1] or '', fresh, usable}
    k = last + 1
end
return answers
