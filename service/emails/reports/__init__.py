"""What is heard of a mail after it was sent: delivered, bounced, complained."""
