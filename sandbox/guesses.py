"""What this double claims, lacks and guesses: the front page shows it, docs/sandbox.md repeats it."""

from typing import Final

SIMULATED: Final = """
Customers with balance, test cards and portal links; products and prices; one-off invoices with bulk lines, previews, payments and credit notes; events; webhook endpoints.
Idempotency keys with replay, mismatch and conflict; rate, concurrency and search limits; one writer per object; delays; the lag of Search.
Webhooks signed afresh for each attempt, retried on anything but 2xx, unordered, sometimes twice.
A clock that moves forward: scheduled finalization, the hour after invoice.created was heard and the 72 hours when it was not, expiry of keys, events and links.
Finalization: numbers, customer balance, negative totals, amounts below the minimum charge.
""".strip().splitlines()
MISSING: Final = """
Subscriptions, meters, taxes, discounts, shipping, Connect, test clocks, invoice revisions.
Payment intents and charges as objects (only their ids appear), refunds, disputes, retries of failed payments, 3-D Secure, partial payments.
PDFs and e-mails; API versions other than the one above, except in the shape of webhooks.
The monthly allocation of reads: GET /_sandbox/counters counts them, nothing refuses them.
""".strip().splitlines()
GUESSES: Final = """
A line's amount is quantity times unit amount, rounded half away from zero to the minor unit.
Decimals take at most 15 digits before the point, 12 after it, and no exponent.
A bulk call takes at most 250 lines and happens whole or not at all.
add_lines emits one invoice.updated and one invoiceitem.created a line; update_lines only the former.
update_lines keeps what it does not name; a new quantity alone keeps the price; an amount replaces price and quantity. Line ids stay. invoice_metadata merges.
A line of a plain amount shows pricing null and quantity 1.
price_data makes an inactive price and, with product_data, a product, with their events.
Replayed errors carry Idempotent-Replayed. A lock timeout comes after two seconds of waiting, carries Stripe-Should-Retry and is not stored.
A missing object or a state that forbids the call is stored under the key; unknown, missing or malformed parameters are not.
Limits are token buckets that hold one second; ten lists at once; search 20 a second.
An empty draft finalizes to a paid invoice of 0.
Deleting a draft deletes its items; deleting a customer leaves its drafts.
Finalizing with auto_advance charges the default payment method at once; without one it is invoice.payment_failed.
The minimum charge is 0.50 in most currencies and applies to both collection methods.
An invoice paid out of band shows the amount in amount_paid and amount_paid_off_stripe.
Voiding gives back the customer balance that was applied.
A credit note on an open invoice lowers amount_due; on a paid one it credits the balance.
The portal shows no drafts. Retries of webhooks run 600 times faster than Stripe's.
Delays are log-normal: 60 ms for a read, 120 for a list, 150 for a write, 1 more a line.
""".strip().splitlines()
