-- Replace generations in one step, and end one write intent of each if intents are given.
-- KEYS: generations, then as many write intents or none.
-- ARGV: nonce, lifetime of a generation in ms, number of generations,
--       minimum ms between two replacements (0: always replace).
-- Returns for each generation 1 if it was replaced, 0 if its last replacement is too recent.
local ms = now_ms()
local n, enough = tonumber(ARGV[3]), tonumber(ARGV[4])
local answers = {}
for i = 1, n do
    local recent = 0
    if enough > 0 then
        local current = redis.call('GET', KEYS[i])
        recent = current and tonumber(string.match(current, '^%d+')) + enough or 0
    end
    if recent > ms then
        answers[i] = 0
    else
        redis.call('SET', KEYS[i], string.format('%.0f.%s.%d', ms, ARGV[1], i), 'PX', ARGV[2])
        answers[i] = 1
    end
end
for i = n + 1, #KEYS do
    redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', '(' .. ms)
    redis.call('ZPOPMIN', KEYS[i])
end
return answers
