create table if not exists orders (
  id           bigint      primary key,
  placed_at    timestamptz not null,
  region       text        not null,
  category     text        not null,
  customer     text        not null,
  amount_cents bigint      not null check (amount_cents > 0),
  status       text        not null check (status in ('paid', 'shipped', 'returned'))
);

create index if not exists orders_by_region on orders (region);
