-- Stop billing a customer. ARGV[3]: by whom and why, as JSON. Answers {made, `since_ms json`}.
local made = redis.call('HSETNX', CUSTOMER, 'hold', string.format('%.0f %s', now, ARGV[3]))
return { made, redis.call('HGET', CUSTOMER, 'hold') }
