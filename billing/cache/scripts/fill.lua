-- Store a loaded value, if its load lock is still held and its generations have not changed.
-- KEYS: entry, its n generations, their n write intents, then other entries, each with its generations
--       (as many as the next one's).
-- ARGV: token, n, the generations it was loaded under, value, ms fresh, ms usable, ms until it expires,
--       nonce, lifetime of a generation in ms, then the values of the other entries.
-- The other entries were part of the same response. A change of any of them replaces the first entry's
-- generation too, so while that is unchanged their values are as current as its own. They stay fresh for
-- twice as long: a refresh of the first refreshes them all, before any needs a refresh of its own.
-- Returns 1 if stored, 0 if refused.
local entry, n = KEYS[1], tonumber(ARGV[2])
if redis.call('HGET', entry, 'token') ~= ARGV[1] then
    return 0
end
redis.call('HDEL', entry, 'token', 'under', 'until', 'failed')
local ms = now_ms()
local found = {}
for i = 1, n do
    found[i] = redis.call('GET', KEYS[1 + i]) or ''
    if redis.call('ZCOUNT', KEYS[1 + n + i], ms, '+inf') > 0 then
        return 0
    end
end
if table.concat(found, ' ') ~= ARGV[3] then
    return 0
end

local function store(key, generations, value, fresh)
    redis.call('HSET', key, 'value', value, 'generations', generations,
        'fresh', ms + fresh, 'usable', ms + ARGV[6])
    redis.call('PEXPIRE', key, ARGV[7])
end

local function standing(first, last)
    local values = {}
    for i = first, last do
        local value = redis.call('GET', KEYS[i])
        if not value then
            value = string.format('%.0f.%s.%d', ms, ARGV[8], i)
            redis.call('SET', KEYS[i], value, 'PX', ARGV[9])
        end
        values[#values + 1] = value
    end
    return table.concat(values, ' ')
end

store(entry, ARGV[3], ARGV[4], ARGV[5])
local others = #ARGV - 9
local step = (#KEYS - 1 - 2 * n) / others
for i = 1, others do
    local other = 2 + 2 * n + (i - 1) * step
    store(KEYS[other], standing(other + 1, other + step - 1), ARGV[9 + i], 2 * ARGV[5])
end
return 1
