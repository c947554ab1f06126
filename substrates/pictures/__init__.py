"""What pictures of all systems share: their style, parts of drawings, and how they move and show themselves.

`style`, `terminals`, `places`, `columns`, `crowd` and `any_system` draw arrays and know no system, and `display`
shows a picture beside a table. `exploration` settles a system as it is turned, `explorer` puts sliders before it, and
`flipbook` shows what was drawn beforehand. Pictures of one system lie with it.
"""
