-- Register a customer. ARGV[3]: currency; the first one is final.
redis.call('HSETNX', CUSTOMER, 'currency', ARGV[3])
return redis.call('HGET', CUSTOMER, 'currency')
