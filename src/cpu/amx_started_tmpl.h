/* For AMX kernels whose sums start at -h~ and are scores when they are done: after amx_tmpl.h. */
static inline void prepare(scores *s, const fkm_row_block *b, const fkm_tiles *t)
{
    (void)s;
    (void)b;
    (void)t;
}

/* Writes -h~ for each centroid as a tile register wants it: the same in all columns. */
static inline void set_start(fkm_tiles *t, int64_t position, SUM value)
{
    SUM *start = (SUM *)t->start + position * 16;
    for (int w = 0; w < 16; w++)
        start[w] = value;
}
