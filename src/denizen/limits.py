"""Every limit in one place, the unit last. A queue, body, page or retry without a limit here is a defect."""

# HTTP
body_bytes_max = 1 << 20
batch_body_bytes_max = 8 << 20
batch_users_max = 1_000
page_users_default = 100
page_users_max = 1_000
page_events_max = 1_000
idempotency_key_chars_max = 255

# Users
email_chars_max = 254
username_chars_max = 64
name_part_chars_max = 200
display_name_chars_max = 200
locale_chars_max = 35
picture_url_chars_max = 2_048
attributes_bytes_max = 16_384
attributes_depth_max = 8
password_chars_min = 8
password_chars_max = 1_024
reason_chars_max = 500
