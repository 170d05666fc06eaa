-- The customer exists at Stripe and is billed in this currency. ARGV[3]: currency, which never changes.
redis.call('HSETNX', CUSTOMER, 'currency', ARGV[3])
return redis.call('HGET', CUSTOMER, 'currency')
