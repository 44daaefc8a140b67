// Paint on a picture: a canvas of the image's own pixels, over which the browser enlarges them. What is painted is sent as
// a text of zeros and ones while the pointer moves, and when it is lifted. Gradio gives `element`, `props`, `trigger` and
// `watch`.
const canvas = element.querySelector('canvas'), brush = element.querySelector('input'), size = props.size;
const context = canvas.getContext('2d'), image = new Image(), painted = new Uint8Array(size * size);
let sent = 0, mean = '#808080', last = null;
const draw = () => {
  context.drawImage(image, 0, 0);
  context.fillStyle = mean;
  painted.forEach((is, at) => is && context.fillRect(at % size, Math.floor(at / size), 1, 1));
};
const send = () => { sent = Date.now(); trigger('input', {painted: painted.join('')}); };
const clear = () => { painted.fill(0); draw(); };
const load = () => {
  image.onload = () => {
    clear();
    const pixels = context.getImageData(0, 0, size, size).data, sums = [0, 0, 0];
    pixels.forEach((value, at) => { if (at % 4 < 3) sums[at % 4] += value; });
    mean = `rgb(${sums.map((sum) => sum / size / size)})`;
  };
  image.src = props.value;
};
const paint = (event) => {
  if (event.buttons !== 1) return;
  const box = canvas.getBoundingClientRect(), scale = size / box.width, radius = size * brush.value / 200;
  const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
  const [fromX, fromY] = last || [x, y], toX = x - fromX, toY = y - fromY;  // a quick stroke has few events
  last = [x, y];
  painted.forEach((_, at) => {
    const right = at % size + .5 - fromX, down = Math.floor(at / size) + .5 - fromY;
    const share = Math.min(Math.max((right * toX + down * toY) / (toX * toX + toY * toY || 1), 0), 1);
    if (Math.hypot(right - share * toX, down - share * toY) <= Math.max(radius, .71)) painted[at] = 1;
  });
  draw();
  if (Date.now() - sent > 150) send();
};
canvas.addEventListener('pointerdown', (event) => {
  canvas.setPointerCapture(event.pointerId);
  last = null;
  paint(event);
});
canvas.addEventListener('pointermove', paint);
canvas.addEventListener('pointerup', () => { last = null; send(); });
element.querySelector('button').addEventListener('click', () => { clear(); send(); });
watch('value', load);
load();
