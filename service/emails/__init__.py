"""Transactional mail: accepted as a row, rendered from templates, sent over SMTP, every attempt kept."""
