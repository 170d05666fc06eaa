-- Announce a write to Stripe: until it ends or the intent expires, no loaded value is stored.
-- KEYS: write intents. ARGV: nonce, ms until an intent expires.
local till = now_ms() + ARGV[2]
for i = 1, #KEYS do
    redis.call('ZADD', KEYS[i], till, ARGV[1])
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
end
return 1
