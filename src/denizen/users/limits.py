"""The limits of a user, the unit last. They stand here because the domain imports nothing else of ours."""

email_chars_max = 254  # RFC 5321, 4.5.3.1.3: a path has 256 octets, two of them angle brackets
email_local_bytes_max = 64  # RFC 5321, 4.5.3.1.1
username_chars_max = 64
phone_chars_max = 64  # as given, before it becomes E.164 with at most 15 digits
name_part_chars_max = 200
display_name_chars_max = 200
locale_chars_max = 35  # RFC 5646, 4.4.1
picture_url_chars_max = 2_048
attributes_bytes_max = 16_384  # as compact JSON
attributes_depth_max = 8  # the attributes object itself is depth 1
attribute_key_chars_max = 200
password_chars_min = 8
password_chars_max = 1_024
password_hash_chars_max = 1_024
reason_chars_max = 500
faults_max = 20  # of one document, that are told
