"""The mailbox: takes mail over SMTP from everybody for everybody, delivers nothing, and shows it."""
