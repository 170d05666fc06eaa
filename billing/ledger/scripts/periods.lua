-- The periods that are still kept.
return redis.call('ZRANGEBYSCORE', CUSTOMER .. ':periods', now, 'inf')
