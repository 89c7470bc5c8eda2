"""Who there is: the users of a tenant's app, what they belong to, what they follow, and how they want to be told.

Only what is stored and how it is read; the routes are in `service.notifications`. Whoever writes to people (mail,
notifications) may ask here.
"""
