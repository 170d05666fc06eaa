-- Announce a write to Stripe: until it is over, or has expired, nothing loaded is kept.
-- KEYS: write intents. ARGV: unique text, ms until an intent expires.
local now = redis.call('TIME')
local till = now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2]
for i = 1, #KEYS do
    redis.call('ZADD', KEYS[i], till, ARGV[1])
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
end
return 1
