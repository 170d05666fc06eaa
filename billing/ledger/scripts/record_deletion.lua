-- Record that Stripe has deleted the customer: from now on it accepts no usage. A customer that the ledger
-- does not know stays unknown.
if redis.call('HEXISTS', CUSTOMER, 'currency') == 1 then
    redis.call('HSETNX', CUSTOMER, 'deleted_ms', now)
end
return 1
