-- List the retained periods.
return redis.call('ZRANGEBYSCORE', CUSTOMER .. ':periods', now, 'inf')
