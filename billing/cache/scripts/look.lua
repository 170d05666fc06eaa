-- What is known of some entries, and who is to load those that are not.
-- KEYS: for each entry its key, then its generations.
-- ARGV: unique text for this call, lease ms ('': order nothing), lifetime of a generation in ms, then the number of
--       generations of each entry.
-- Answers for each entry: state, generations, token or '', value or '', ms it stays fresh, ms it stays usable.
--   hit     fresh
--   stale   usable; a token is the order to refresh it
--   miss    nothing usable; the token is the order to load it
--   wait    somebody else is loading it under the generations that stand now
--   failed  loading it failed a moment ago
-- The value is the last one known, valid or not.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local nonce, lease, lifetime = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local answers, k = {}, 1

local function generations(first, last)
    local found = {}
    for i = first, last do
        local value = redis.call('GET', KEYS[i])
        if not value then -- evicted or never seen: a value that no entry was ever filled under
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
    local kept = redis.call('HMGET', entry, 'value', 'generations', 'fresh', 'usable',
        'token', 'under', 'until', 'failed')
    local valid = kept[2] == standing
    local fresh = valid and kept[3] - ms or 0
    local usable = valid and kept[4] - ms or 0
    -- A load that began under other generations is void: nobody waits for it.
    local current = kept[6] == standing
    local loading = current and kept[5] and tonumber(kept[7]) > ms
    local failed = current and kept[8] and tonumber(kept[8]) > ms

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
    answers[#answers + 1] = {state, standing, token, kept[1] or '', fresh, usable}
    k = last + 1
end
return answers
