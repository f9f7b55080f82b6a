"""Connection synchronisation: established connections survive the loss of the gateway that made them.

    data plane --changed_records--> driver --> peer (sessions, acknowledgement, resend, bulk) --> wire --> UDP
    UDP --> wire (authentication, replay window) --> peer --> driver --import_records--> data plane

Every record is opaque here: `record_size` bytes that the data plane made and its peer understands.
"""
