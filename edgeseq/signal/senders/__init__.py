"""What apps and watches send, each in its own words, made into readings; nothing here opens a connection.

Accelerations leave here with Android's signs: lying still with its face up, a watch has z = +1 g. (Apple's are the
opposite on all three axes.) :class:`~edgeseq.signal.layout.Layout` turns them where a model was trained on the others.
"""
